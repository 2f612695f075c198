"""One run: checked, begun, kept after every epoch, resumed, recorded; and the digest of the code that made it."""
