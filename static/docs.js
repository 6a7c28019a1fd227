// Swagger UI over our OpenAPI description. Its own bundle is a plain script that sets one global.

window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null });
