"""One run: checked, begun, saved after every epoch, resumed, recorded; and the digest of the code that made it."""
