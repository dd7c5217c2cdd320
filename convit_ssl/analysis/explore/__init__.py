"""Reading the features of a whole collection: map, clusters, odd images, what to label next."""

from convit_ssl.analysis.explore.collection import Exploration, Images, Near, explore
from convit_ssl.analysis.explore.folder import write_folder

__all__ = ["Exploration", "Images", "Near", "explore", "write_folder"]
