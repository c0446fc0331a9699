"""Names for your own layers, losses and functions: scopes, where names come from, and how Keras asks."""

from kflow.core.objects.scopes import CustomObjectScope, custom_object_scope, get_custom_objects

__all__ = ["CustomObjectScope", "custom_object_scope", "get_custom_objects"]
