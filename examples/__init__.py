"""Programs to copy from. They are a package for the tests alone, which import them."""
