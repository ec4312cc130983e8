/* Texts on their way between Java and C: UTF-8 in byte arrays, because JNI's own strings are of another kind. */
#include "shim.h"

#include <string.h>

const char *text_of(JNIEnv *env, jbyteArray bytes, struct text *it) {
  if (bytes == NULL) return NULL;
  jsize length = (*env)->GetArrayLength(env, bytes);
  if (length > (jsize)sizeof it->bytes - 1) length = sizeof it->bytes - 1;
  (*env)->GetByteArrayRegion(env, bytes, 0, length, (jbyte *)it->bytes);
  it->bytes[length] = '\0';
  return it->bytes;
}

jbyteArray bytes_new(JNIEnv *env, const char *text) {
  jsize length = (jsize)strlen(text);
  jbyteArray bytes = (*env)->NewByteArray(env, length);
  if (bytes != NULL) (*env)->SetByteArrayRegion(env, bytes, 0, length, (const jbyte *)text);
  return bytes;
}
