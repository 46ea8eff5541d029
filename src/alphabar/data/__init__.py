"""Where items come from: sources, reading and caching, inspection, augmentation."""
