"""The web page, as `make lab` bundles it from the sources in `lab/`; served by `service.api.routes.lab`."""
