/* Builds trees of expressions and evaluates them by calls through pointers. */
#include <stdio.h>
#include <stdlib.h>

struct node {
    unsigned (*value)(const struct node *);
    const struct node *left, *right;
    unsigned number;
};

static unsigned leaf(const struct node *n) { return n->number; }
static unsigned add(const struct node *n) { return n->left->value(n->left) + n->right->value(n->right); }
static unsigned sub(const struct node *n) { return n->left->value(n->left) - n->right->value(n->right); }
static unsigned mul(const struct node *n) { return n->left->value(n->left) * n->right->value(n->right); }
static unsigned mix(const struct node *n) {
    unsigned a = n->left->value(n->left), b = n->right->value(n->right);
    return (a << 5 | a >> 27) ^ b;
}

static unsigned (*const kinds[])(const struct node *) = {add, sub, mul, mix};

static unsigned seed = 2463534242u;

static unsigned next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static struct node *build(int depth) {
    struct node *n = malloc(sizeof *n);
    if (!n)
        exit(1);
    n->number = next();
    n->left = n->right = 0;
    if (depth == 0) {
        n->value = leaf;
    } else {
        n->value = kinds[next() % 4];
        n->left = build(depth - 1);
        n->right = build(depth - 1);
    }
    return n;
}

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? strtoul(argv[1], 0, 10) : 20;
    struct node *root = build(12);
    unsigned sum = 0;
    for (unsigned i = 0; i < rounds; i++)
        sum = sum * 31 + root->value(root);
    printf("checksum %08x\n", sum);
    return 0;
}
