/* A fuzz target that is written in Python, under libFuzzer.

   The main program is libFuzzer's. It makes inputs, led by the coverage that the sanitized core
   counts, and hands each to the one_input() of tests/fuzz/sanitized.py. An exception that gets out
   of it aborts, which libFuzzer reports and saves as it does what AddressSanitizer finds.

   Environment: FUZZ_PYTHON is the interpreter whose packages are used, FUZZ_TARGET the target's
   name. With PYTHONMALLOC=malloc AddressSanitizer sees every object of Python's. */

#include <Python.h>

#include <sanitizer/asan_interface.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static PyObject *one_input;

static void
stop(void)
{
    PyErr_Print();
    abort();
}

static void
check(PyStatus status)
{
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

int
LLVMFuzzerInitialize(int *Py_UNUSED(argc), char ***Py_UNUSED(argv))
{
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* they are libFuzzer's */
    check(PyConfig_SetBytesString(&config, &config.executable, getenv("FUZZ_PYTHON")));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);

    PyObject *module = PyImport_ImportModule("tests.fuzz.sanitized");
    if (module == NULL) {
        stop();
    }
    one_input = PyObject_GetAttrString(module, "one_input");
    if (one_input == NULL) {
        stop();
    }
    Py_DECREF(module);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *input = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (input == NULL) {
        stop();
    }
    /* A bytes object has a NUL behind its last byte, which would hide the commonest of reads out of
       bounds. Shorter ones are shared with everybody. */
    const char *end = PyBytes_AS_STRING(input) + size;
    if (size > 1) {
        ASAN_POISON_MEMORY_REGION(end, 1);
    }
    PyObject *nothing = PyObject_CallOneArg(one_input, input);
    if (nothing == NULL) {
        stop();
    }
    ASAN_UNPOISON_MEMORY_REGION(end, 1);
    Py_DECREF(nothing);
    Py_DECREF(input);
    return 0;
}
