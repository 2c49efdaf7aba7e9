'use strict';
// Calls a gateway with Node's gRPC client; ends with an AssertionError where it is let down.
//
//     node client.js SCENARIO HOST:PORT [CA.pem]
//
// The functions in `scenarios` are what SCENARIO names; with CA.pem the connection speaks TLS.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const health = require('grpc-health-check');

const PROTOS = path.join(__dirname, '..', '..', '..', 'protos');
const loaded = loader.loadSync('inference.proto', {
  includeDirs: [PROTOS],
  keepCase: true,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(loaded).inference;
const Health = grpc.makeGenericClientConstructor(health.service, 'Health');
const { status: Status } = grpc;

const [name, address, authority] = process.argv.slice(2);
const credentials = authority
  ? grpc.credentials.createSsl(fs.readFileSync(authority))
  : grpc.credentials.createInsecure();
const channelOptions = {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
};
const clients = [];

function connect(Service = GRPCInferenceService, options = {}) {
  const client = new Service(address, credentials, { ...channelOptions, ...options });
  clients.push(client);
  return client;
}

// Seconds from now, as a deadline.
const within = (seconds) => new Date(Date.now() + seconds * 1000);

// A unary call: `answer` is a promise of its answer; a status that is not OK rejects it with the
// client's own error, which has `code`, `details` and the trailing `metadata`.
function call(client, method, request, { metadata = new grpc.Metadata(), seconds = 30 } = {}) {
  let handle;
  const answer = new Promise((resolve, reject) => {
    handle = client[method](request, metadata, { deadline: within(seconds) }, (error, answer) => {
      if (error) reject(error);
      else resolve(answer);
    });
  });
  return { answer, cancel: () => handle.cancel() };
}

const ask = (client, method, request, options) => call(client, method, request, options).answer;

// The error that a call ends with.
async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error.code !== undefined, error);
    return error;
  }
  return assert.fail('the call succeeded');
}

const raw = (values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

function request(model, input, datatype, shape, values, other = {}) {
  return {
    model_name: model,
    inputs: [{ name: input, datatype, shape }],
    raw_input_contents: [raw(values)],
    ...other,
  };
}

// A request to the model `rows`, whose every row is `number` and the three after it.
const rowOf = (number, other) =>
  request('rows', 'x', 'FP32', [1, 4], Float32Array.from([0, 1, 2, 3], (i) => number + i), other);

function checkRow(number, answer) {
  const [bytes] = answer.raw_output_contents;
  const end = bytes.byteOffset + bytes.length;
  const got = new Float32Array(bytes.buffer.slice(bytes.byteOffset, end));
  const x = [0, 1, 2, 3].map((i) => number + i);
  assert.deepEqual([...got], [...x.map((value) => 2 * value), x.reduce((a, b) => a + b)]);
  assert.deepEqual(answer.outputs[0].shape, [1, 5]);
}

// A request that computes for seconds, served one at a time.
const slow = (model = 'slow') => request(model, 'steps', 'INT64', [1], BigInt64Array.of(10_000n));

// Megabytes that are hard to compress, or easy.
function megabytes(count, hard) {
  const values = new Float32Array(count << 18);
  for (let i = 0; i < values.length; i += 1) values[i] = hard ? Math.fround(Math.sin(i)) : i % 8;
  return values;
}

async function checkEcho(client, values) {
  const given = request('echo', 'x', 'FP32', [2, values.length / 2], values);
  const answer = await ask(client, 'ModelInfer', given);
  assert.deepEqual(answer.outputs[0].shape, [2, values.length / 2]);
  assert.equal(Buffer.compare(answer.raw_output_contents[0], raw(values)), 0);
}

// A ModelStreamInfer: sends `requests`, gives the messages, and how the stream ended.
function stream(client, requests, metadata = new grpc.Metadata()) {
  return new Promise((resolve) => {
    const duplex = client.ModelStreamInfer(metadata, { deadline: within(30) });
    const messages = [];
    let error = null;
    duplex.on('data', (message) => messages.push(message));
    duplex.on('error', (caught) => {
      error = caught;
    });
    duplex.on('status', (status) => resolve({ messages, error, status }));
    for (const each of requests) duplex.write(each);
    duplex.end();
  });
}

const numbers = (count) => Array.from({ length: count }, (_, i) => i);

const scenarios = {
  async unary() {
    checkRow(7, await ask(connect(), 'ModelInfer', rowOf(7)));
  },

  async typed_contents() {
    const answer = await ask(connect(), 'ModelInfer', {
      model_name: 'rows',
      id: 'seven',
      inputs: [
        { name: 'x', datatype: 'FP32', shape: [1, 4], contents: { fp32_contents: [7, 8, 9, 10] } },
      ],
    });
    assert.equal(answer.id, 'seven');
    checkRow(7, answer);
  },

  async many_in_flight() {
    const client = connect();
    const answers = numbers(500).map((i) => ask(client, 'ModelInfer', rowOf(i)));
    (await Promise.all(answers)).forEach((answer, i) => checkRow(i, answer));
  },

  async control() {
    const client = connect();
    assert.equal((await ask(client, 'ServerReady', {})).ready, true);
    assert.equal((await ask(client, 'ModelReady', { name: 'rows' })).ready, true);
    assert.ok((await ask(client, 'ServerMetadata', {})).extensions.includes('statistics'));
    const metadata = await ask(client, 'ModelMetadata', { name: 'rows' });
    assert.deepEqual(metadata.inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }]);
    const { models } = await ask(client, 'RepositoryIndex', {});
    assert.ok(models.some((model) => model.name === 'rows' && model.state === 'READY'));
  },

  async stream() {
    const requests = numbers(200).map((i) => rowOf(i, { id: String(i) }));
    const { messages, error, status } = await stream(connect(), requests);
    assert.equal(error, null);
    assert.equal(status.code, Status.OK);
    assert.equal(messages.length, 200);
    const left = new Set(numbers(200));
    for (const { infer_response: answer, error_message: message } of messages) {
      assert.equal(message, '');
      checkRow(Number(answer.id), answer);
      left.delete(Number(answer.id));
    }
    assert.equal(left.size, 0);
  },

  async error_in_a_stream() {
    const requests = [rowOf(1), { ...rowOf(2), model_name: 'nobody' }, rowOf(3)];
    const { messages, status } = await stream(connect(), requests);
    assert.equal(status.code, Status.OK);
    assert.equal(messages.filter((message) => message.infer_response?.model_name).length, 2);
    const [told] = messages.filter((message) => message.error_message);
    assert.match(told.error_message, /nobody/);
  },

  async metadata_asks_for_statuses_in_a_stream() {
    const metadata = new grpc.Metadata();
    metadata.set('triton_grpc_error', 'true');
    const requests = [{ ...rowOf(2), model_name: 'nobody' }];
    const { messages, error } = await stream(connect(), requests, metadata);
    assert.equal(messages.length, 0);
    assert.equal(error.code, Status.NOT_FOUND);
    assert.match(error.details, /nobody/);
  },

  async metadata_of_every_kind_is_taken() {
    const metadata = new grpc.Metadata();
    numbers(50).forEach((i) => metadata.add(`x-note-${i % 7}`, `value ${i}`));
    metadata.set('x-proof-bin', Buffer.from(numbers(256)));
    const client = connect();
    // Twice, since the second time the connection's header table knows it.
    for (const i of [1, 2]) checkRow(i, await ask(client, 'ModelInfer', rowOf(i), { metadata }));
  },

  async errors() {
    const client = connect();
    const unknown = 'näme: 100 % ✓\n';
    const missing = await refusal(
      ask(client, 'ModelInfer', { ...rowOf(1), model_name: unknown }),
    );
    assert.equal(missing.code, Status.NOT_FOUND);
    assert.ok(missing.details.includes(unknown), missing.details);
    const wrong = await refusal(
      ask(client, 'ModelInfer', request('rows', 'x', 'FP32', [1, 3], new Float32Array(3))),
    );
    assert.equal(wrong.code, Status.INVALID_ARGUMENT);
    assert.match(wrong.details, /\bx\b/);
    const Unknown = grpc.makeGenericClientConstructor({
      NoSuchMethod: { ...GRPCInferenceService.service.ModelInfer, path: '/no.such.Service/Method' },
    });
    const nowhere = await refusal(ask(connect(Unknown), 'NoSuchMethod', rowOf(1)));
    assert.equal(nowhere.code, Status.UNIMPLEMENTED);
    checkRow(2, await ask(client, 'ModelInfer', rowOf(2)));
  },

  async a_full_queue_tells_when_to_come_back() {
    const client = connect();
    // One runs, one waits: the third at the latest finds the queue full.
    const calls = numbers(4).map(() => call(client, 'ModelInfer', slow('crowded')));
    const error = await refusal(Promise.all(calls.map((each) => each.answer)));
    assert.equal(error.code, Status.UNAVAILABLE);
    assert.deepEqual(error.metadata.get('grpc-retry-pushback-ms'), ['1000']);
    calls.forEach((each) => each.cancel());
    await Promise.allSettled(calls.map((each) => each.answer));
  },

  async deadline() {
    const client = connect();
    const late = await refusal(ask(client, 'ModelInfer', slow(), { seconds: 0.2 }));
    assert.equal(late.code, Status.DEADLINE_EXCEEDED);
    checkRow(3, await ask(client, 'ModelInfer', rowOf(3)));
  },

  async cancellation() {
    const client = connect();
    const calls = numbers(4).map(() => call(client, 'ModelInfer', slow()));
    checkRow(4, await ask(client, 'ModelInfer', rowOf(4)));
    calls.forEach((each) => each.cancel());
    for (const each of calls) {
      assert.equal((await refusal(each.answer)).code, Status.CANCELLED);
    }
    checkRow(5, await ask(client, 'ModelInfer', rowOf(5)));
  },

  async cancelled_stream() {
    const client = connect();
    const duplex = client.ModelStreamInfer({ deadline: within(30) });
    const ended = new Promise((resolve) => {
      duplex.on('error', () => {});
      duplex.on('status', resolve);
      duplex.on('data', () => duplex.cancel());
    });
    duplex.write(rowOf(1));
    assert.equal((await ended).code, Status.CANCELLED);
    checkRow(6, await ask(client, 'ModelInfer', rowOf(6)));
  },

  async large_tensors() {
    const client = connect();
    const values = megabytes(8, true);
    await checkEcho(client, values);
    await Promise.all(numbers(4).map(() => checkEcho(client, values)));
  },

  async gzip() {
    const client = connect(GRPCInferenceService, {
      'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
    });
    await checkEcho(client, megabytes(4, false));
    checkRow(7, await ask(client, 'ModelInfer', rowOf(7)));
  },

  async deflate_in_a_stream() {
    const client = connect(GRPCInferenceService, {
      'grpc.default_compression_algorithm': grpc.compressionAlgorithms.deflate,
    });
    const values = megabytes(1, false);
    const given = request('echo', 'x', 'FP32', [1, values.length], values);
    const { messages, status } = await stream(client, [given, given]);
    assert.equal(status.code, Status.OK);
    assert.equal(messages.length, 2);
    for (const { infer_response: answer } of messages) {
      assert.equal(Buffer.compare(answer.raw_output_contents[0], raw(values)), 0);
    }
  },

  async health() {
    const client = connect(Health);
    for (const service of ['', 'inference.GRPCInferenceService']) {
      assert.equal((await ask(client, 'check', { service })).status, 'SERVING');
    }
    const unknown = await refusal(ask(client, 'check', { service: 'no.such.Service' }));
    assert.equal(unknown.code, Status.NOT_FOUND);
    const watch = client.watch({ service: '' });
    watch.on('error', (error) => assert.equal(error.code, Status.CANCELLED));
    const [first] = await new Promise((resolve) => {
      watch.once('data', (...told) => resolve(told));
    });
    assert.equal(first.status, 'SERVING');
    watch.cancel();
  },
};

if (name === '--list') {
  console.log(Object.keys(scenarios).join('\n'));
} else {
  scenarios[name]().then(
    () => clients.forEach((client) => client.close()),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}
