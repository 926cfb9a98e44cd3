"""What the commands of `tandem` share: options made of dataclasses, settings from files, output."""
