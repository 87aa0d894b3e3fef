"""Published data sets made into datalists, and what is wrong with their splits."""
