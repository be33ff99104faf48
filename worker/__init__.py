"""The persistence worker: RabbitMQ in, PostgreSQL behind, confirmations out."""
