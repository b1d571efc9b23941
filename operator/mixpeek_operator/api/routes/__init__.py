"""One module per group of routes; each defines `router(services) -> Routes`."""
