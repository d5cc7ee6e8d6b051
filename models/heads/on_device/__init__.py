"""What heads compute, with torch where the maps lie: the same answers as on the processor.

Batches of images and float64 throughout; what is decided by rounding is computed in the same
order. Knows no rule of a head.
"""
