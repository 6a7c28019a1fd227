// Shows the OpenAPI description in Swagger UI, whose own script defines one global function.

window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, validatorUrl: null });
