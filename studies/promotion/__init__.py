"""From a study's candidate to the champion: the gate, the decision, and how it is remembered."""
