/* From C into Python without ctypes: what _upcall.py does for the default signature, at half the price, and what
 * it does at the ends of callbacks and threads. Optional; built where a compiler and Python.h are.
 *
 * user_data is the Python function. The library is not linked: failures go to callbridge._contain.contain, and the
 * one function that is called comes as an address. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

static PyObject *contain;

/* An exception ends here. contain itself raises nothing, unless a signal's handler does just then. */
static void fail(void) {
  PyObject *type, *error, *traceback, *none;
  PyErr_Fetch(&type, &error, &traceback);
  PyErr_NormalizeException(&type, &error, &traceback);
  if (traceback != NULL && error != NULL) PyException_SetTraceback(error, traceback);
  none = contain == NULL ? NULL : PyObject_CallOneArg(contain, error);
  if (none == NULL) PyErr_WriteUnraisable(contain);
  Py_XDECREF(none);
  Py_XDECREF(type);
  Py_XDECREF(error);
  Py_XDECREF(traceback);
}

/* A whole number of any size, as ctypes cuts it; None is 0; anything else is a TypeError. */
static intptr_t number_of(PyObject *result) {
  if (result == Py_None) return 0;
  if (PyLong_CheckExact(result)) return (intptr_t)PyLong_AsUnsignedLongLongMask(result);
  PyObject *whole = PyNumber_Index(result);
  if (whole == NULL) return 0;
  intptr_t number = (intptr_t)PyLong_AsUnsignedLongLongMask(whole);
  Py_DECREF(whole);
  return number;
}

/* --- threads of other languages ------------------------------------------------------------- */

/* Such a thread would get a thread state for each call, which costs more than all the rest. So its first call visits
 * a callback of a scope with thread hooks: the library runs attach, and detach at the thread's end, unless the
 * interpreter has ended before; see _threads.py. */
typedef int32_t (*call_fn)(uint64_t handle, void *arg, intptr_t *out_result);
static call_fn cbr_call;
static uint64_t visitor;
static _Thread_local bool visited;

#define NOT_OURS ((void *)(intptr_t)-1)
static void *attach(void *user_data) {
  (void)user_data;
  if (PyGILState_GetThisThreadState() != NULL) return NOT_OURS;
  (void)PyGILState_Ensure();
  /* Lets go of the GIL and keeps the state, because the count of PyGILState stays at one. */
  return PyEval_SaveThread();
}

/* By now the thread has forgotten its state: PyGILState would make another one. */
static void detach(void *user_data, void *token) {
  (void)user_data;
  PyEval_RestoreThread(token);
  PyThreadState_Clear(token);
  PyThreadState_DeleteCurrent();
}

static intptr_t visit(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

/* --- calls and ends ------------------------------------------------------------------------- */

static intptr_t upcall(void *user_data, void *arg) {
  if (!visited && cbr_call != NULL) {
    visited = true;
    (void)cbr_call(visitor, NULL, NULL);
  }
  PyGILState_STATE gil = PyGILState_Ensure();
  intptr_t number = 0;
  /* The library's reference lasts until destroy, which comes after this call: none of our own is needed. */
  PyObject *address = arg == NULL ? Py_NewRef(Py_None) : PyLong_FromVoidPtr(arg);
  PyObject *result = address == NULL ? NULL : PyObject_CallOneArg(user_data, address);
  Py_XDECREF(address);
  if (result != NULL) {
    number = number_of(result);
    Py_DECREF(result);
  }
  if (PyErr_Occurred() != NULL) fail();
  PyGILState_Release(gil);
  return number;
}

static void destroy(void *user_data) {
  PyGILState_STATE gil = PyGILState_Ensure();
  Py_DECREF((PyObject *)user_data);
  PyGILState_Release(gil);
}

static PyObject *bind(PyObject *module, PyObject *function) {
  (void)module;
  Py_XSETREF(contain, Py_NewRef(function));
  Py_RETURN_NONE;
}

static PyObject *attach_with(PyObject *module, PyObject *arguments) {
  unsigned long long call, handle;
  (void)module;
  if (!PyArg_ParseTuple(arguments, "KK", &call, &handle)) return NULL;
  visitor = handle;
  cbr_call = (call_fn)(uintptr_t)call;
  Py_RETURN_NONE;
}

static PyObject *hold(PyObject *module, PyObject *object) {
  (void)module;
  Py_INCREF(object);
  Py_RETURN_NONE;
}

static PyObject *let_go(PyObject *module, PyObject *object) {
  (void)module;
  Py_DECREF(object);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_O, "bind(contain): what is told of exceptions."},
    {"attach_with", attach_with, METH_VARARGS, "attach_with(cbr_call, handle): what a thread's first call visits."},
    {"hold", hold, METH_O, "hold(object): adds a reference, which DESTROY or let_go drops."},
    {"let_go", let_go, METH_O, "let_go(object): drops a reference that hold has added."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "callbridge._fast", "From C into Python without ctypes.", -1, methods, NULL, NULL, NULL, NULL,
};

static int add_address(PyObject *module, const char *name, void *function) {
  return PyModule_AddObject(module, name, PyLong_FromVoidPtr(function));
}

PyMODINIT_FUNC PyInit__fast(void) {
  PyObject *module = PyModule_Create(&definition);
  if (module == NULL) return NULL;
  if (add_address(module, "UPCALL", (void *)upcall) < 0 || add_address(module, "DESTROY", (void *)destroy) < 0 ||
      add_address(module, "ATTACH", (void *)attach) < 0 || add_address(module, "DETACH", (void *)detach) < 0 ||
      add_address(module, "VISIT", (void *)visit) < 0) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
