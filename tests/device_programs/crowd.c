// A hundred threads and more that wait at once, while others go on. Argument: how many.
#include "toy.h"

static void *wait_long(void *unused)
{
    CHECK(wait_for(1) == 0);
    return unused;
}

static void *insist_long(void *unused)
{
    CHECK(insist_on(2) == 0);
    return unused;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    int crowd = atoi(argv[1]);
    pthread_t threads[crowd];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 0; i < crowd; i++)
        CHECK(pthread_create(&threads[i], &small, i % 2 ? wait_long : insist_long, NULL) == 0);
    CHECK(sleepers(crowd) == 0);
    for (int i = 0; i < 500; i++)
        CHECK(count(1) == 0);
    CHECK(release(1) == 0);
    for (int i = 1; i < crowd; i += 2)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 500; i++)
        CHECK(count(1) == 0);
    CHECK(release(2) == 0);
    for (int i = 0; i < crowd; i += 2)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
