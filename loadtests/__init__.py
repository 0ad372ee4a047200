"""Load tests of a running service with Locust: `python -m loadtests`.

Locust patches the process it is imported in, so only `locustfile.py` and `users/` import it, and they run in a
process of their own.
"""
