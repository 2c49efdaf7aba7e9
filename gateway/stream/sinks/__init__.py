"""Where the prediction stream is carried to: files, HTTP, Kafka, NATS."""
