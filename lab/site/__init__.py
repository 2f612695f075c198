"""Pages in HTML: notebooks in a frame with one style, links that lead somewhere, and the site made of them."""
