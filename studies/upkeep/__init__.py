"""What keeps a platform in order that many studies have run on: clear up, back up, restore."""
