"""The studio: a local web page for what the command line does. It needs the extra ``studio`` (Gradio)."""
