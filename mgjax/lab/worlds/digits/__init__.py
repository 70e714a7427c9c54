"""Moving digits: real handwriting on 32 x 32 pixels."""
