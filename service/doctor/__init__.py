"""The doctor: is a model served as its checkpoint declares, as its weights were trained, and as it should be?

`examine` looks at a model that is loaded here, `identify` tells from vectors alone how another server makes them.
"""
