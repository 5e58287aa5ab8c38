"""The stage executor and one module per method. Backend-neutral: what is trained by which means is the backend's."""
