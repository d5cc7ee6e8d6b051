"""From images to weights to error maps, each kept once it is made."""
