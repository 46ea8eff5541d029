"""The studio: a local web page for what the command line does. Needs the extra ``studio`` (Gradio)."""
