"""What requests may say and what answers look like, one module a route group; the OpenAPI document follows."""
