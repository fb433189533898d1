"""Other servers' protocols over the same log: thin, without a second path to the data. The seq stays the cursor."""
