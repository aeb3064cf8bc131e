"""Tools, pots and supplies: `name | shape | colours | lowest-highest price | what it is for | variants`."""

GOODS = """
# Jardin > Outils
Sécateur | tool | steel,crimson | 15-69 | Lames en acier trempé, coupe franche jusqu'à 22 mm. | à lame franche, à enclume, pour gaucher, de poche, à cliquet
Bêche | tool | steel,wood | 22-59 | Fer forgé d'une seule pièce, manche en frêne. | classique, de drainage, pour enfant
Fourche-bêche | tool | steel,wood | 25-65 | Quatre dents pour aérer la terre sans la retourner. | forgée, légère
Râteau | tool | steel,wood | 15-39 | Pour niveler et préparer les semis. | 12 dents, 16 dents, à gazon
Transplantoir | tool | steel,wood | 7-22 | Pour repiquer en pleine terre comme en pot. | étroit, large, gradué
Serfouette | tool | steel,wood | 14-35 | Panne et langue pour biner et tracer les sillons. | panne et langue, panne et fourche
Ébrancheur | tool | steel,orange | 29-79 | Bras allongés pour les branches jusqu'à 45 mm. | à crémaillère, télescopique
Gants de jardin | tool | lime,steel | 5-25 | Paume renforcée, dos respirant, taille unisexe. | en cuir, anti-épines, en coton
# Jardin > Pots et bacs
Pot en terre cuite | pot | terracotta,cream | 4-39 | Terre cuite poreuse, percée, résistante au gel. | 14 cm, 20 cm, 30 cm, 40 cm
Bac à oranger | pot | cream,forest | 59-189 | Bois peint, ferrures en acier, à la mode de Versailles. | 40 cm, 50 cm, 60 cm
Jardinière | pot | steel,wood | 9-49 | Avec réserve d'eau et trop-plein. | en zinc, en bois, en terre cuite, suspendue
Poterie émaillée | pot | blue,teal | 19-99 | Émail cuit à haute température, fond percé. | bleu cobalt, vert céladon, blanc cassé
Cache-pot | pot | amber,cream | 6-29 | Pour la maison et la véranda, fond étanche. | en osier, en céramique, en jute
Soucoupe | pot | terracotta,steel | 2-12 | Retient l'eau d'arrosage, protège les sols. | 20 cm, 30 cm, 40 cm
# Jardin > Terreaux et engrais
Terreau | bag | wood,forest | 6-19 | Sans tourbe, enrichi en compost de feuilles. | universel, pour semis, pour plantes fleuries, pour agrumes, pour géraniums
Terre de bruyère | bag | wood,violet | 8-18 | Acide et légère, pour azalées, camélias et hortensias. | véritable, enrichie
Engrais | bag | lime,orange | 7-22 | D'origine organique, action longue durée. | pour rosiers, pour fraisiers, pour gazon, pour arbustes, corne broyée
Paillage | bag | amber,wood | 8-25 | Garde la fraîcheur et limite les herbes indésirables. | écorces de pin, paille de lin, cosses de cacao, miscanthus
Compost | bag | wood,amber | 5-12 | Compost végétal mûr, tamisé à 10 mm. | végétal, de fumier
# Jardin > Arrosage
Arrosoir | can | steel,forest | 12-59 | Équilibré, pomme en laiton démontable. | en zinc 10 L, en zinc 5 L, d'intérieur, galvanisé 12 L
Tuyau d'arrosage | can | lime,yellow | 19-79 | Cinq couches, ne vrille pas. | 15 m, 25 m, 50 m
Oya | pot | terracotta,amber | 9-35 | Jarre poreuse à enterrer, arrose doucement pendant une semaine. | 1 L, 3 L, 5 L
Récupérateur d'eau | can | forest,wood | 59-199 | Avec robinet et couvercle, pour l'eau de pluie. | 200 L, 300 L
"""
