"""The open mail relay whose queues are RabbitMQ queues."""
