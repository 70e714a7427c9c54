"""Memory, time and communication of a run, by formula or by compilation without devices."""
