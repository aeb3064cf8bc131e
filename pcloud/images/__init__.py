"""Prepared images: recipe -> qcow2 + kernel + initrd + manifest, named by content.

recipe.py    templates/images/*.yaml -> a chain of layers and its hash
sources.py   the machine's own apt sources and settings
sandbox.py   programs in their own namespaces, so that a kill leaves nothing behind
tree.py      chain -> a folder holding a whole Debian system
boot.py      the kernel, and a small initrd of our own
disk.py      tree -> ext4 -> compressed qcow2
manifest.py  what an image's folder must hold, and whether it does
store.py     the folder of images: find, publish, locks
build.py     all of it together, cached, several at once
"""

from pcloud.images.build import Progress, build, build_all
from pcloud.images.manifest import Image, Manifest, read_manifest, verify
from pcloud.images.recipe import find_leaves, find_recipes, load_recipe
from pcloud.images.store import find_broken, find_image, list_images

__all__ = [
    "Image",
    "Manifest",
    "Progress",
    "build",
    "build_all",
    "find_broken",
    "find_image",
    "find_leaves",
    "find_recipes",
    "list_images",
    "load_recipe",
    "read_manifest",
    "verify",
]
