"""What a person sees of a run: pictures, curves, films and one page. It only reads runs.

No module imports torch when it is loaded, so that listing runs and writing reports start at once.
"""
