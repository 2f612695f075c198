"""All that decides a number: data, distortions, recipe, optimiser, schedule, and the loop over batches."""
