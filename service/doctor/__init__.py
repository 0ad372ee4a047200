"""The doctor: checks that a model is served as its checkpoint declares and as its weights were trained.

`examine` checks a model that is loaded here; `identify` finds out from vectors alone how another server makes them.
"""
