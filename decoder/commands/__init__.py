"""The commands of `tandem`, one module each. Heavy imports wait inside them, so that help comes at once."""
