"""RabbitMQ: the only place in the worker that imports aio_pika, aiormq or pamqp."""
