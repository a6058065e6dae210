from pkgutil import extend_path

# What else is installed under this name, which is a namespace.
__path__ = extend_path(__path__, __name__)
