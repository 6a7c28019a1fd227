"""The routes: what each address answers. They parse, call service.py, and reply; nothing else uses them."""
