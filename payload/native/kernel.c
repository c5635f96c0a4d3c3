/* The payload's hot loops in C: optional, octet for octet what the payload's Python files define in numpy.
 *
 * One build unit, so that the compiler inlines across chapters; each stands on those before it. Python calls the
 * entries through payload/native/library.py; scratch memory is the caller's. Where the processor has AVX2 the loops
 * that take most of the time use it; the plain ones beside them give the same integers (tests compare all three).
 */

#include "kernel.h"

#include "rotation.c"
#include "transform.c"
#include "quantiser.c"
#include "tables.c"
#include "contexts.c"
#include "classes.c"
#include "range_coder.c"
#include "bits.c"
#include "chunks.c"
#include "listing.c"
#include "layers.c"
#include "decoding.c"
#include "mixing.c"
#include "dense.c"
#include "synthesis.c"
#include "products.c"
#include "winograd.c"
#include "similarity.c"
#include "agreement.c"
#include "noise.c"
#include "drawing.c"
#include "outline.c"
#include "clouds.c"
#include "cloud_network.c"
#include "apps.c"
#include "reed_solomon.c"
#include "convolutional.c"
#include "twins.c"

EXPORT void nadir_take_loops(int taken) { loops_taken = taken; }

/* The digest of the sources this was built from (payload/native/sources.py): an older kernel is never called. */
#ifndef NADIR_SOURCES
#error "NADIR_SOURCES is missing: build the kernel with setup.py"
#endif
EXPORT const char *nadir_sources(void) { return NADIR_SOURCES; }

/* What an import of the module needs. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Where an array begins, which ctypes tells at many times the cost. */
static PyObject *address(PyObject *module, PyObject *array) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(array, &view, PyBUF_SIMPLE))
        return NULL;
    void *at = view.buf;
    PyBuffer_Release(&view);
    return PyLong_FromVoidPtr(at);
}

static PyMethodDef methods[] = {{"address", address, METH_O, "Where a contiguous array begins."}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "Hot loops; see payload/native/library.py.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
