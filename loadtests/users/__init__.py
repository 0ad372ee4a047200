"""The users of each scenario. Only Locust's process imports these."""
