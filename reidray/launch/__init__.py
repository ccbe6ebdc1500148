"""Launch: where a run is put together. Jobs call this room; it calls all others."""
