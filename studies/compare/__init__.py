"""Studies held against one another: their searches, their winners, the images they differ on."""
