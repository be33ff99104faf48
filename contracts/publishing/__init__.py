"""How the client keeps its word: what is unanswered, what travels together, what is sent again. Free of AMQP."""
