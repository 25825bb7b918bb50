"""The guest's files, built from Debian packages: kernel, initramfs and root image."""
