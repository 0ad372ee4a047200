"""Which vectors lie nearest to a query. Knows neither texts nor models."""
