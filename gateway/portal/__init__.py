"""The portal: French pages rendered by the server, that work without JavaScript.

Reading order: `views` (what a page shows), `render` (templates, dates, typography), `forms` (what a page sends back),
then the modules that fill the views and answer the routes.
"""
