"""Schemas of requests and responses, one module per group of routes; they define the OpenAPI document."""
